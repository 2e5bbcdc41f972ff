"""The server: `cellrail serve`, and the same as an extension of Jupyter Server.

Built on jupyter_server, which every Jupyter has installed: its login, cookies, XSRF checks and
checks of hosts are the ones that people know and that are looked after. Every handler is a few
lines over `App`, called in a thread; what runs notebooks are processes of their own.
"""
