"""FamilyCard: a family's words for model cards."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FamilyCard:
    """A family's words for model cards, which fit the sentences of model_card.md.jinja.

    >>> CausalLanguageModel.family.card.task
    'text-generation'
    """

    name: str
    """The model's kind: "A masked language model, trained further from …"."""
    does: str
    """What it does: "it fills in tokens that are hidden from it"."""
    task: str
    """The task of transformers' pipelines."""
    mean_over: str
    """The tokens over which the loss is the mean."""
    comparison: str
    """A sentence on the models with which the perplexity may be compared."""
    peft_class: str
    """The class of peft that loads an adapter with its model."""
    verb: str = "generate"
    """The pipeline's name in the example."""
    call: str = "generate({prompt}, max_new_tokens=64)"
    """The example's call of the pipeline."""
    loader: str | None = None
    """The auto class in the example, if transformers has no pipeline for the task."""
    prompt: str = "Once upon a time"
    """The example's prompt, if there are no probes."""
    is_causal: bool = False
    """Whether each token is predicted from those before it, so that chats can be answered."""
