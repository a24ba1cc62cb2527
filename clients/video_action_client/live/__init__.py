"""A live source, window by window: what `client.watch()` is made of.

events.py       what a watcher is told
source.py       what can be watched, by its address
connection.py   one connection to it: packets in, small video files out; the only module that imports av
parameters.py   the parameter sets of H.264 and HEVC, without which a clip cannot be decoded
stamps.py       both timestamps of every packet
timeline.py     the source's timestamps as seconds since the first picture, and as times of day
cutter.py       which packets a window needs
backlog.py      windows on their way to the server and back, in order and bounded
smoothing.py    labels averaged over the latest windows
reader.py       from connections to the backlog: paced, taken up again when lost
watch.py        all of it together
"""
