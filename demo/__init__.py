"""The page to try served models: a Gradio form in front of the client. `python -m scripts.demo` shows it.

page.py        the page and the events behind it, with style.css and page.js; form.py: the fields
requests.py    what the form asks the server, and the command line that asks the same
heat.py        where and when the model looked, with heat.js, which lays it over the player
camera.py      the camera's tab, with camera.html and camera.js: windows that the browser records, one after the other
progress.py    an answer that is still coming; shown.py: what the page's components show of it
html.py        an answer as HTML
security.py    headers, and requests of other pages that are refused; uploads.py: how much uploads may take on disk
browser.py     a headless browser on the page, for pictures and tests
"""
