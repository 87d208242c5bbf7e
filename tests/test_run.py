"""run, check_output and their relatives: what subprocess promises, in a pod."""

from __future__ import annotations

import os
import pickle
import subprocess
import time

import pytest
from support import SCALE, seconds

import kubews
from kubews import DEVNULL, PIPE, STDOUT, Pod
from kubews.testing import LocalCluster


def test_output_error_and_exit_code_r4(pod: Pod) -> None:
    """R-4: the exit code is the command's own."""
    done = pod.run(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert done.args == ["sh", "-c", "echo out; echo err >&2; exit 3"]


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 128, 255])
def test_every_exit_code_r4(pod: Pod, code: int) -> None:
    """R-4."""
    assert pod.call(["sh", "-c", f"exit {code}"]) == code


def test_killed_by_a_signal_is_128_and_its_number(pod: Pod) -> None:
    assert pod.call(["sh", "-c", "kill -9 $$"]) == 137


def test_streams_are_separate_by_default_and_merge_on_request_r6(pod: Pod) -> None:
    """R-6: nothing is merged behind the user's back; STDOUT merges in the order of arrival."""
    # Who has not looked for so long finds both at once, in any order.
    script = "echo 1; sleep 0.5; echo 2 >&2; sleep 0.5; echo 3"
    separate = pod.run(["sh", "-c", script], stdout=PIPE, stderr=PIPE)
    assert (separate.stdout, separate.stderr) == (b"1\n3\n", b"2\n")
    merged = pod.run(["sh", "-c", script], stdout=PIPE, stderr=STDOUT)
    assert (merged.stdout, merged.stderr) == (b"1\n2\n3\n", None)


@pytest.mark.half_close
def test_input_reaches_the_command_and_ends_r18(pod: Pod) -> None:
    """R-18: sort and sha256sum answer only once their input has ended."""
    assert pod.check_output(["sort"], input=b"b\na\nc\n") == b"a\nb\nc\n"
    assert pod.run(["wc", "-c"], input="äöü", text=True, stdout=PIPE).stdout.strip() == "6"


@pytest.mark.parametrize("stdin", [None, DEVNULL])
def test_a_command_that_reads_stdin_returns_at_once_r17(pod: Pod, stdin: int | None) -> None:
    """R-17: without input there is no stdin, so cat does not wait for what nobody will send."""
    assert pod.run(["cat"], stdin=stdin, stdout=PIPE, timeout=seconds(10)).stdout == b""


def test_stdin_is_asked_for_only_when_it_is_used_r17(pod: Pod, local) -> None:
    """R-17, and the way out for runtimes that need one (kata-containers #13640)."""
    pod.run(["true"])
    assert "stdin=" not in local.requests[-1].target
    with pod.popen(["true"], request_stdin=True) as process:
        assert process.wait(seconds(10)) == 0
    assert "stdin=true" in local.requests[-1].target


@pytest.mark.half_close
def test_large_input_and_output_at_once(pod: Pod) -> None:
    data = os.urandom(1 << 20) * 8
    assert pod.check_output(["cat"], input=data, timeout=seconds(60)) == data


def test_timeout_has_the_output_so_far_and_closes_r11(pod: Pod, cluster) -> None:
    """R-11: a timeout is an exception with what had come, and the connection is closed before it."""
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        pod.run(
            ["sh", "-c", "echo early; echo warning >&2; exec sleep 60"],
            capture_output=True,
            timeout=1.5 * SCALE,
        )
    assert isinstance(caught.value, kubews.TimeoutExpired)
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.stdout, caught.value.stderr) == (b"early\n", b"warning\n")
    assert caught.value.timeout == 1.5 * SCALE
    assert "timed out after" in str(caught.value)
    if isinstance(cluster, LocalCluster):
        cluster.wait_idle()


def test_timeout_counts_the_connection_too_r11(pod: Pod, local) -> None:
    """R-11: a server that does not answer is not waited for longer than the timeout."""
    local.next_faults(kubews.testing.Faults(response_delay=kubews.testing.FOREVER))
    begin = time.monotonic()
    with pytest.raises(kubews.TimeoutExpired):
        pod.run(["true"], timeout=0.3 * SCALE)
    assert time.monotonic() - begin < seconds(1.3)


def test_timeout_bounds_wait_ready_too_r11(client) -> None:
    """R-11."""
    begin = time.monotonic()
    with pytest.raises(kubews.TimeoutExpired):
        client.pod("never-there").run(["true"], wait_ready=30, timeout=0.3 * SCALE)
    assert time.monotonic() - begin < seconds(1.5)


def test_check_raises_called_process_error(pod: Pod) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        pod.run(["sh", "-c", "echo text; exit 4"], check=True, stdout=PIPE)
    assert isinstance(caught.value, kubews.ProcessError)
    assert (caught.value.returncode, caught.value.stdout) == (4, b"text\n")
    assert pickle.loads(pickle.dumps(caught.value)).returncode == 4
    assert pod.check_call(["true"]) == 0
    with pytest.raises(kubews.ProcessError):
        pod.check_call(["false"])
    with pytest.raises(kubews.ProcessError):
        pod.check_output(["false"])


def test_a_string_without_shell_names_the_cure_r55(pod: Pod) -> None:
    """R-55: not "executable not found", hours later."""
    with pytest.raises(
        TypeError, match=r"'ls -l /' is one string: use shell=True .* \['ls', '-l', '/'\]"
    ):
        pod.run("ls -l /")
    assert pod.check_output("echo $((1 + 1)) | tr 2 3", shell=True) == b"3\n"
    assert pod.check_output(["echo $1", "sh", "argument"], shell=True) == b"argument\n"


def test_text_is_utf8_and_errors_are_the_users_choice(pod: Pod) -> None:
    assert pod.check_output(["printf", "a\\r\\nb\\303\\251"], text=True) == "a\nbé"
    assert pod.check_output(["printf", "\\351"], encoding="latin-1") == "é"
    assert pod.check_output(["printf", "\\351"], errors="replace") == "\N{REPLACEMENT CHARACTER}"
    with pytest.raises(UnicodeDecodeError):
        pod.check_output(["printf", "\\351"], text=True)


def test_getoutput_and_getstatusoutput(client) -> None:
    script = "echo a; sleep 0.1; echo b >&2"
    assert kubews.getoutput(script, pod="web-0", client=client) == "a\nb"
    assert kubews.getstatusoutput("echo a; exit 5", pod="web-0", client=client) == (5, "a")
    assert kubews.getoutput("echo é", pod="web-0", client=client, text=False) == "é"


def test_module_level_functions_take_names_or_a_pod(cluster, monkeypatch, pod: Pod) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    assert kubews.run(["true"], pod="web-0").returncode == 0
    named = {"pod": "pod/web-0", "namespace": pod.namespace, "container": "app"}
    assert kubews.run(["true"], **named).returncode == 0
    assert kubews.call(["true"], pod=pod) == 0
    assert kubews.check_call(["true"], pod=pod) == 0
    assert kubews.check_output(["echo", "x"], pod=pod, container="app") == b"x\n"
    with pytest.raises(TypeError, match="not with a Pod"):
        kubews.run(["true"], pod=pod, namespace="default")
    with pytest.raises(TypeError, match="the name of a pod or a Pod, not int"):
        kubews.run(["true"], pod=1)
    with pytest.raises(TypeError, match="pod"):
        kubews.run(["true"])


@pytest.mark.parametrize("name", ["preexec_fn", "pass_fds", "user", "executable"])
def test_arguments_that_make_no_sense_in_a_pod_name_themselves(pod: Pod, name: str) -> None:
    with pytest.raises(TypeError, match=name):
        pod.run(["true"], **{name: None})


def test_no_descriptor_of_this_process_reaches_a_pod(pod: Pod) -> None:
    assert pod.run(["true"], close_fds=True).returncode == 0
    with pytest.raises(TypeError, match="close_fds can only be True"):
        pod.run(["true"], close_fds=False)


def test_arguments_that_contradict_each_other(pod: Pod) -> None:
    with pytest.raises(ValueError, match="stdin and input"):
        pod.run(["cat"], input=b"x", stdin=PIPE)
    with pytest.raises(ValueError, match="capture_output"):
        pod.run(["cat"], capture_output=True, stdout=PIPE)
    for options in ({"stdout": PIPE}, {"check": True}):
        with pytest.raises(ValueError, match="argument not allowed"):
            pod.check_output(["cat"], **options)
    with pytest.raises(TypeError, match="multiple values for keyword argument 'pod'"):
        pod.run(["cat"], pod="another")
    with pytest.raises(ValueError, match="only be used for stderr"):
        pod.run(["cat"], stdout=STDOUT)
    with pytest.raises(ValueError, match="universal_newlines"):
        pod.run(["cat"], text=True, universal_newlines=False)


def test_a_command_that_cannot_start_is_an_error_however_asked_r4(pod: Pod) -> None:
    """R-4: no 126, no 127, no 0, but the server's text, as often as one asks."""
    process = pod.popen(["/no/such/command"], stdout=PIPE)
    try:
        for ask in (process.wait, process.poll, process.wait, process.communicate):
            with pytest.raises(kubews.ExecError, match="no such file or directory") as caught:
                ask()
            assert caught.value.status["reason"] == "InternalError"
            assert str(caught.value).count("Internal error occurred: ") == 1
        assert process.returncode is None
    finally:
        process.close()
    with pytest.raises(kubews.ExecError):
        pod.run(["/no/such/command"], capture_output=True)


def test_output_goes_to_this_process_by_default(pod: Pod, capfd) -> None:
    pod.run(["sh", "-c", "echo visible; echo trouble >&2"])
    assert capfd.readouterr() == ("visible\n", "trouble\n")


def test_output_goes_to_a_replaced_stdout_as_in_a_notebook(pod: Pod, capsys) -> None:
    pod.run(["printf", "a\\303\\251\\n"])
    assert capsys.readouterr().out == "aé\n"


def test_old_servers_cannot_end_input_and_say_so_before_a_byte_is_sent_r18(
    old_pod: Pod, old
) -> None:
    """R-18: v4 cannot end stdin; that is an error with the ways round, not a hang and not silence."""
    with pytest.raises(kubews.HalfCloseUnsupported, match=r"v4\.channel\.k8s\.io.*head -c N"):
        old_pod.run(["cat"], input=b"data", stdout=PIPE)
    if isinstance(old, LocalCluster):
        old.wait_idle()
    assert old_pod.check_output(["echo", "no input is fine"]) == b"no input is fine\n"


@pytest.mark.half_close
def test_text_input_is_encoded_as_asked(pod: Pod) -> None:
    assert pod.check_output(["cat"], input="é", encoding="latin-1") == "é"
    assert pod.run(["wc", "-c"], input="é", encoding="latin-1", stdout=PIPE).stdout.strip() == "1"
