from __future__ import annotations

import pytest

from killswitch.control import roles
from killswitch.errors import Denied


@pytest.mark.parametrize("method", sorted(roles.READS))
def test_both_roles_may_read(method: str) -> None:
    roles.authorize(roles.ADMIN, method)
    roles.authorize(roles.VIEW, method)


@pytest.mark.parametrize("method", sorted(roles.ORDERS))
def test_only_admin_may_order(method: str) -> None:
    roles.authorize(roles.ADMIN, method)
    with pytest.raises(Denied, match=f"{method}.*admin socket"):
        roles.authorize(roles.VIEW, method)


@pytest.mark.parametrize(("role", "method"), [("admin", "Unheard"), ("operator", "GetStatus"), ("", "Kill")])
def test_what_is_not_listed_is_nobody_s(role: str, method: str) -> None:
    with pytest.raises(Denied):
        roles.authorize(role, method)
