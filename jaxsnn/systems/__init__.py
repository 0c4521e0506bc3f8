"""The published systems: settings, command line, stages and run folder of each.

A system is a module or a package that declares its network, its settings, its stages and what it
reports; what all share is beside them (``experiment`` of all that convert, ``stages``,
``run_folder``). Scripts in ``experiments/`` call these; nothing else imports them.
"""
