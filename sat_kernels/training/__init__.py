"""The training driver: adversarial training, evaluation and comparison of activations, from the command line.

Needs ``pip install 'sat_kernels[train]'``. ``sat-kernels train --help`` lists the settings.
"""
