"""Stories that run: what webhooks do, told by programs that do it. `manage.py demo NAME` plays one.

A story is a module with a title, a summary and a `play`. On its `stage` it starts receivers (`examples/`), speaks for
those who publish, and waits until what it tells has happened. Everybody knows nothing but the public REST API, as any
integrator would. `place` is the platform they play on: real processes, for as long as it takes.

`serve --demo` plays the appointments again and again: `sms` is the provider, `examples/clinic.py` its customer.
"""
