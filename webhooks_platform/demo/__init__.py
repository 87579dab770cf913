"""The appointment story of `serve --demo`: an SMS platform tells a clinic what becomes of its text messages.

`sms` is the SMS platform: it publishes `message.accepted`, `message.delivered` and, when the patient writes back,
`message.reply.received`. `clinic` is its customer: it receives the webhooks, verifies them, acts on each once, and
answers the patient, which is the next event. Both know nothing but the public REST API, as any integrator would.
"""
