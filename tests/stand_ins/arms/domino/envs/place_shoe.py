from ._base_task import Base_Task


class place_shoe(Base_Task):
    pass
