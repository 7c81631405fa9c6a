"""Installs and tends the appliance: program, bundles, units. The standard library only, from Python 3.10.

It imports nothing of edge-reclass, since it runs before that is installed: ``python3 -m edge_reclass_appliance``.
Afterwards the same commands are ``edge-reclass appliance``.
"""
