"""Everything that ships inside a model archive, and nothing else; this file imports nothing.

Data flows one way: a TorchServe row becomes a request (`options`), the request's times become windows (`views`),
windows become frames (`decoding`), frames become views (`transforms`), views become logits (`runtimes`), logits become
JSON (`results`). `pipeline` runs those steps without knowing TorchServe; `video_handler` is the adapter to it.
"""
