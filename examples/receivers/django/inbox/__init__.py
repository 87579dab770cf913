"""An app that receives webhooks. Copy it into your project; put your own code into `acting.py`."""
