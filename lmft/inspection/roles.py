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
    CONTEXT: "the model reads it and does not predict it",
    HIDDEN: "not in the inputs; the model has to predict it",
    REPLACED: "the inputs show another token in its place; the model has to predict it",
    KEPT: "the inputs show it in its place; the model has to predict it all the same",
    PREDICTED: "the model has to predict it, and reads it for later predictions",
    DROPPED: "the model neither reads nor predicts it",
    MARKER: "put there by the objective: a mask, a sentinel, the decoder's start",
    PADDING: "fills up the row; the model does not see it",
}
"""What each role means, in the order of legends."""
