"""A stand-in for the few functions of PyBullet that the adapter of CALVIN looks after."""

DIRECT = 2
MADE = []
"""Client that each call was meant for."""
_clients = []


def connect(mode, options=""):
    _clients.append(mode)
    return len(_clients) - 1


def createVisualShape(shapeType, physicsClientId=0):
    MADE.append(physicsClientId)
    return len(MADE)


def createMultiBody(baseVisualShapeIndex, physicsClientId=0):
    MADE.append(physicsClientId)


def computeDofCount(bodyUniqueId, physicsClientId=0):
    MADE.append(physicsClientId)
    return 9
