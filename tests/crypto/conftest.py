import pytest

from pylon.crypto.libsecp import Libsecp, open_library
from pylon.crypto.pure import Pure


def libsecp():
    library = open_library()
    assert library, "this machine has no libsecp256k1: apt install libsecp256k1-1"
    return Libsecp(library)


BACKENDS = {"libsecp256k1": libsecp, "ecdsa": Pure}


@pytest.fixture(scope="session", params=sorted(BACKENDS))
def backend(request):
    """Each of the two back ends in turn."""
    return BACKENDS[request.param]()


@pytest.fixture(scope="session")
def both():
    return [make() for make in BACKENDS.values()]
