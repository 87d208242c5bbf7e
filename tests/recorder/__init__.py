"""Record what a real cluster answers, frame by frame, for ``tests/transcripts``.

::

    python -m tests.recorder --list
    python -m tests.recorder --real-cluster 1.31 exec-1.31-v5-path-not-found
    python -m tests.recorder --real-cluster 1.36              # all that belong to 1.36
    python -m tests.recorder --kubeconfig PATH --context NAME --to DIRECTORY exec-v5-path-not-found

``conversations`` says what is asked, ``recording`` writes down what comes. Nothing of kubews has a
part in a conversation: what is recorded is what kubews is held to.
"""
