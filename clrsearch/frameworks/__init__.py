"""Adapters that run other libraries' training loops inside a ``train(run)``, one module each."""
