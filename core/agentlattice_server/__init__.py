"""The governance core as a service: the hosted product's wire protocol, on SQLite or PostgreSQL.

    al serve --database sqlite:///governance.db

or, inside of another program:

    from agentlattice_server import Organisations, Service, create_app, listen

    Service(create_app(Organisations("sqlite:///governance.db")), listen("127.0.0.1", 8700)).run()
"""

from agentlattice_server.application import ServiceSettings, create_app
from agentlattice_server.organisations import Organisations
from agentlattice_server.outward import OutwardSettings
from agentlattice_server.serving import Service, listen

__all__ = ["Organisations", "OutwardSettings", "Service", "ServiceSettings", "create_app", "listen"]
