"""The routes, one module for each group of them. `ROUTES`: those that need neither queue nor workers."""

from server.web.routes import (
    docs,
    internal,
    login,
    model_files,
    node_info,
    settings,
    system,
    templates,
    uploads,
    user_files,
    users,
    view,
)

ROUTES = (
    *docs.ROUTES,
    *internal.ROUTES,
    *login.ROUTES,
    *model_files.ROUTES,
    *node_info.ROUTES,
    *settings.ROUTES,
    *system.ROUTES,
    *templates.ROUTES,
    *uploads.ROUTES,
    *user_files.ROUTES,
    *users.ROUTES,
    *view.ROUTES,
)
