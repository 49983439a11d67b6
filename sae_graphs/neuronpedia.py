"""Names of features on Neuronpedia, which shows what a public SAE's features mean."""

SITE = "https://www.neuronpedia.org"


def feature_url(neuronpedia_id: str | None, index: int) -> str | None:
    """The page of a feature, or None for SAEs that Neuronpedia does not hold.

    >>> feature_url("gpt2-small/5-res-jb", 10603)
    'https://www.neuronpedia.org/gpt2-small/5-res-jb/10603'
    """
    return None if neuronpedia_id is None else f"{SITE}/{neuronpedia_id}/{index}"
