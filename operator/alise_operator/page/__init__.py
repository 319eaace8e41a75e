"""The read-only page behind `kubectl alise ui`: all AliseEngines, and one of them with its conditions, pods and events.

server.py answers GET on the pod's loopback, read.py asks the cluster and the pods, view.py decides what is shown (the values of shown.py),
and render.py makes HTML. Requests are not here: the plugin reads them with the rights of the person, and fills them in
(`alise_contract/page.py`).
"""
