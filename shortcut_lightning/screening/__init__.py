"""Which photographs are protected: pictures to learn it from, the fit, and the detector's card."""
