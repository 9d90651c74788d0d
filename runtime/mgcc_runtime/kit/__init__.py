"""A device kit: a folder from which a device without a network installs this runtime and plays a bundle.

Made on any machine with pip and a package index, for another Python and another processor: `mgcc kit`.
"""
