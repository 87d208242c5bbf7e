"""PodFiles: what a handle of a pod can do with files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Optional, Union, overload

from kubews.command import StrOrBytesPath
from kubews.targets import Target

if TYPE_CHECKING:
    from collections.abc import Sequence
    from io import BufferedReader, BufferedWriter, TextIOWrapper

    from kubews.files.copying import Copied
    from kubews.files.download import HasWrite
    from kubews.files.opening import AnyMode, TextMode, WriteMode
    from kubews.files.progress import Progress
    from kubews.files.upload import HasRead


class PodFiles(Target):
    """The files of a pod; ``Pod`` has this and everything else.

    Threads: any.
    """

    def copy_from(
        self,
        remote: StrOrBytesPath,
        local: Union[StrOrBytesPath, HasWrite],
        *,
        symlinks: bool = False,
        preserve: bool = True,
        retries: int = 3,
        checksum: Optional[bool] = None,
        resume: bool = False,
        progress: Progress = None,
        max_files: int = 1_000_000,
        max_bytes: int = 1 << 40,
    ) -> Copied:
        """Copy a file or a directory of the pod to here.

        If ``local`` is a directory, the copy is made in it, under its own name, else it is ``local``; one that ends
        with a slash must be there for a file. Each file is
        written under a temporary name and renamed when it is whole. Nothing that comes can be written outside of
        the copy; owners and setuid bits are left alone; devices and the like are left out with a warning. Holes stay
        holes (to a pod they become zeros). Without ``tar`` in the image a shell sends the tree, without a shell
        ``cat`` sends a file.

        Args:
            remote: the path; a link that it names is followed.
            local: a path, or a binary file object for the bytes of one file.
            symlinks: whether to make those symbolic links that stay within the copy. None is made by default, and
                each that is not is told in ``warnings``.
            preserve: whether modes and times are those of the pod.
            retries: how often to go on after a cut: single files where they were cut, trees from the beginning.
            checksum: whether to compare a checksum of a single file: None takes one that the image can calculate,
                True insists on SHA-256 (and is an error for a directory, which is verified as an archive), False
                takes none.
            resume: leave what has arrived of a single file beside ``local`` if this is cut or interrupted, or its
                process dies, and go on with what such a call has left, if the file is still the same. Names of
                what is left begin with ``.kubews-``.
            progress: True for tqdm's bar, or a function of the bytes done and of all (None if unknown).
            max_files: entries that may come.
            max_bytes: of contents that may come, holes included.

        Returns:
            A tuple of ``path``, ``files``, ``size``, ``verified`` and ``warnings``.

        Raises:
            NoSuchFile: there is nothing at the path, or no directory for it here.
            TruncatedTransfer: it was cut, and not only ``retries`` times.
            UnsafeArchive: what came would have been written elsewhere, or is more than allowed.
            CopyError: the remote tools have failed, are missing, or something cannot be written here.
            ApiError: the server refused.
            ConnectFailed: the server could not be reached.

        Threads: blocks.
        """
        from kubews.files import arrival, copying, download  # only for programs that copy

        wishes = copying.Wishes(preserve, retries, checksum, resume)
        limits = arrival.Limits(max_files, max_bytes)
        return download.copy_from(
            self, remote, local, wishes=wishes, symlinks=symlinks, progress=progress, limits=limits
        )

    def copy_to(
        self,
        local: Union[StrOrBytesPath, Sequence[StrOrBytesPath], HasRead],
        remote: StrOrBytesPath,
        *,
        preserve: bool = True,
        retries: int = 3,
        checksum: Optional[bool] = None,
        resume: bool = False,
        progress: Progress = None,
    ) -> Copied:
        """Copy files and directories from here to the pod.

        If ``remote`` is a directory, the copies are made in it, under their own names (of ``.`` and ``dir/.``: what is
        in them), else there is one, which is ``remote``, or what that links to; one that ends with a slash must be
        there for a file. What is copied has a temporary name until it is whole and verified;
        directories that are there already keep what else is in them. It belongs to the container's user. Needs
        ``sh``, ``mv`` and ``rm`` in the image; without ``tar`` the shell unpacks trees.

        Args:
            local: a path, a glob or several of them, or a binary file object. Links that are named are followed,
                those below are copied as links; a FIFO or a device that is named is read.
            remote: the path.
            preserve: whether modes and times are those here.
            retries: as for ``copy_from``; a file object cannot be read again.
            checksum: as for ``copy_from``.
            resume: as for ``copy_from``; what has arrived is left in the pod.
            progress: as for ``copy_from``.

        Returns:
            As ``copy_from``.

        Raises:
            NoSuchFile: there is nothing to copy, or no directory for it in the pod.
            TruncatedTransfer: it was cut, and not only ``retries`` times.
            CopyError: the remote tools have failed, are missing, or something cannot be read here.
            HalfCloseUnsupported: a file object of unknown size, and a server before 1.30.
            ApiError: the server refused.
            ConnectFailed: the server could not be reached.

        Threads: blocks.
        """
        from kubews.files import copying, upload  # only for programs that copy

        wishes = copying.Wishes(preserve, retries, checksum, resume)
        return upload.copy_to(self, local, remote, wishes=wishes, progress=progress)

    @overload
    def open(
        self,
        path: StrOrBytesPath,
        mode: TextMode = "r",
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        newline: Optional[str] = None,
    ) -> TextIOWrapper: ...

    @overload
    def open(
        self,
        path: StrOrBytesPath,
        mode: Literal["rb"],
    ) -> BufferedReader: ...

    @overload
    def open(
        self,
        path: StrOrBytesPath,
        mode: WriteMode,
    ) -> BufferedWriter: ...

    def open(
        self,
        path: StrOrBytesPath,
        mode: AnyMode = "r",
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        newline: Optional[str] = None,
    ) -> Union[TextIOWrapper, BufferedReader, BufferedWriter]:
        """Open a file of the pod; what is returned is a file object for everything that takes one.

        Reading goes on where it was cut, and can seek if the image has ``tail``; what has changed meanwhile otherwise
        than by growing is an error. What is written is in a temporary file until ``close()`` has verified it, and then
        has the name, or is appended; if the ``with`` block is left by an exception, nothing is. Nor is what is not
        closed when the interpreter exits: the temporary file, ``.kubews-…`` in the same directory, may stay then.
        A new file keeps the mode of the one that it replaces, and links are followed.
        Only an append that a full disk ends is told but not undone, for others may have written there meanwhile.

        Args:
            path: of the file.
            mode: ``r``, ``w`` or ``a``, with ``b`` for bytes.
            encoding: of text, by default UTF-8.
            errors: as for the builtin ``open``.
            newline: as for the builtin ``open``.

        Raises:
            NoSuchFile: there is none, or no directory for it.
            CopyError: it cannot be read or written, or the image lacks what it takes.
            HalfCloseUnsupported: to write, with a server before 1.30.
            ApiError: the server refused.
            ConnectFailed: the server could not be reached.
            ConnectionLost: it was cut before anything was known of the path.

        Threads: blocks. The file is for one thread.
        """
        from kubews.files import opening  # not for programs that only run commands

        return opening.open_file(self, path, mode, encoding, errors, newline)
