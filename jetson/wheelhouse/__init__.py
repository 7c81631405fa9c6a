"""Everything that a device without a network needs for ``pip install``, as one archive per target.

    targets.py   the systems: Python, glibc, extras, bounds
    lock.py      the committed lock files
    contents.py  what a folder of wheels holds, and what is wrong with it
    archive.py   manifest and reproducible tar
    sbom.py      CycloneDX bill of materials
    deb.py       Debian package

Run by jetson/make_wheelhouse.sh. Needs runtime/edge_reclass_appliance on the path, which has the table of systems, and
for all but the target table ``packaging``.
"""
