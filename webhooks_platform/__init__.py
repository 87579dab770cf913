"""The project package: settings, urls, boot-time checks. Nothing imports it back."""

VERSION = "0.1.0"
