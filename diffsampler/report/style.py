"""How figures look."""

# From the palette of Okabe and Ito, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#767676", "#222222"
FILLED, STEP = {"fill": True, "color": ORANGE, "alpha": 0.4}, {"color": BLUE, "lw": 1.4}
TRUTH, BAND = {"color": BLACK, "lw": 1.3, "ls": "--"}, {"color": BLUE, "alpha": 0.2, "lw": 0}
EXACT = {"color": BLACK, "lw": 1.2, "label": "exact samples"}
