"""The site: the protocol's routes and this server's own, behind a door that locks.

application = make_application(Site(folders=folders, door=Door()), routes, services)
"""
