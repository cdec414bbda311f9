"""Roles: what an objective does with a token."""

CONTEXT = "context"
HIDDEN = "hidden"
REPLACED = "replaced"
KEPT = "kept"
PREDICTED = "predicted"
DROPPED = "dropped"
MARKER = "marker"
PADDING = "padding"

MEANINGS = {
    CONTEXT: "read, not predicted",
    HIDDEN: "not in the inputs, predicted",
    REPLACED: "another token stands in its place, predicted",
    KEPT: "in its place in the inputs, predicted all the same",
    PREDICTED: "predicted, and read for later predictions",
    DROPPED: "neither read nor predicted",
    MARKER: "put there by the objective: a mask, a sentinel, a start",
    PADDING: "fills up the row, not seen",
}
"""What each role means, in the order of the legend."""
