from recorded_arms import ArmsTask


class place_shoe(ArmsTask):
    pass
