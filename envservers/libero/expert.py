"""stub"""
class Expert:
    def __init__(self, memory=None): self._m=memory or {}
    def memory(self): return self._m
    def act(self, scene):
        import numpy as np
        return np.zeros(7)
