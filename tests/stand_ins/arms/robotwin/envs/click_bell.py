from recorded_arms import ArmsTask


class click_bell(ArmsTask):
    pass
