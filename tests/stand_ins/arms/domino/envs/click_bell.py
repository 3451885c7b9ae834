from ._base_task import Base_Task


class click_bell(Base_Task):
    pass
