"""The errors of the plugin, which `__main__.py` prints. Every message is for the person at the terminal: what was wrong, where, and what to
do.

PluginError
├── NoKubectlError      there is no program `kubectl`
├── NoClusterError      no cluster is configured, or it does not answer
├── NotAllowedError     the person may not do this
├── NotFoundError       there is no such object, or it is gone
├── NotUnderstoodError  a pod's answer is not one that this plugin knows
└── KubectlError        kubectl failed for another reason; its own words follow
"""


class PluginError(Exception):
    """The base of all errors of the plugin."""


class NoKubectlError(PluginError):
    """There is no kubectl."""


class NoClusterError(PluginError):
    """The cluster cannot be reached."""


class NotAllowedError(PluginError):
    """The API server refused the request."""


class NotFoundError(PluginError):
    """The object does not exist."""


class NotUnderstoodError(PluginError):
    """A pod answered something that this plugin does not know."""


class KubectlError(PluginError):
    """kubectl failed."""
