"""What a source needs to judge and read a request, without a database: verification, bodies, handshakes, mapping.

Called by `deliveries/services/receiving.py`, in this order: `verification` says whether the sender may send, `handshakes`
answers what is only a question, `bodies` reads the payload, `mapping` makes an event of it. `presets` are settings for
providers one meets often. Everything here is a plain function of what came and of the time.
"""
