"""Ready-made models: one file per experiment of the field, each with a ``build()`` and runnable as a script.

The package ``bayesinv`` never imports anything from here.
"""
