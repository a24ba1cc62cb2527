"""The request: one TorchServe row -> videos and options; answers -> the body that goes back."""
