"""Many videos through the served pipeline: evaluation and bulk classification. Imports nothing.

    files.py         folders, lists, globs -> VideoFile; which file a dataset's entry means
    annotations.py   labelled lists -> Annotation; the layout is recognised, what is ambiguous is refused
    class_ids.py     the labels of such a list -> ids of the model's classes
    outcomes.py      one video's outcome: scores or an error, as a value that JSON and Arrow can carry
    work.py          one worker: batches of files -> outcomes, decoding the next batch while the model has this one
    engines.py       where workers run: in this process, or in several of them
    scratch.py       temporary folders, and what killed runs left of them
    progress.py      how far a run is: a bar, or lines where there is no terminal
    environment.py   what computed scores: processor, device, runtime, versions
    cores.py         keeps a worker of a cluster to the cores it was promised
    ray_engine.py    where workers run: actors on a Ray cluster, through Ray Data; the only module that imports ray
    archives.py      spec or .mar -> an unpacked archive, with a worker's share of the machine written into its settings
    journal.py       append-only record of finished batches; survives a kill at any byte
    rows.py          outcomes -> rows of one table
    shards.py        rows -> Parquet or JSON-lines shards and a manifest; the only module that imports pyarrow
    metrics.py       accuracies, confidence intervals, confusion matrix (numpy)
    class_metrics.py precision, recall, F1, average precision, calibration (numpy)
    samples.py       records of videos -> arrays, and every metric of them
    class_rows.py    what each class's samples say, and the CSV of it
    view_scores.py   the logits of every view, in a file
    report.py        outcomes of an evaluation -> result file and summary
    comparison.py    two such results: paired bootstrap and McNemar's test
    confused.py      which classes are most often taken for each other (numpy)
    plots.py         the result's pictures; the only module that imports matplotlib

Everything below `work.py` in a call sees only its batch, so a video's row does not depend on who computed it or when.
Batches are made before anything runs and a batch is finished or not done at all: a killed run that goes on puts the
same videos in front of the model together, and writes the same bytes.
"""
