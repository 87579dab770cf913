"""What the web server serves."""

import os

from django.core.wsgi import get_wsgi_application

from webhooks_platform.servers import require_servers

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webhooks_platform.settings")

require_servers()
application = get_wsgi_application()
