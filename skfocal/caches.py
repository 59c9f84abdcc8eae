"""The caches shared by fits: token ids, pretrained weights and outputs of frozen layers."""

from skfocal._data.tokens import clear_token_cache, token_cache_info
from skfocal._encoder.frozen_layers import clear_frozen_cache, frozen_cache_info
from skfocal._encoder.pretrained import clear_pretrained_cache, pretrained_cache_info
from skfocal._runtime.shared_payload import clear_payloads


def cache_info() -> dict[str, int]:
    """Return how often this process has done the work that the caches save.

    The folds and candidates of a search share the token ids of each distinct text, the
    pretrained weights and, with ``freeze``, the outputs of the frozen layers. The caches are never
    part of a pickle. Data that a worker received through :func:`share` does not count, as the
    worker did not compute it.

    Returns
    -------
    dict of str to int
        ``texts_tokenized``, ``weights_read``, ``tokenizers_read`` and ``documents_frozen``: the
        documents whose outputs of the frozen layers were computed for the cache. The counts never
        go down.

    Examples
    --------
    >>> from skfocal import cache_info
    >>> sorted(cache_info())
    ['documents_frozen', 'texts_tokenized', 'tokenizers_read', 'weights_read']
    """
    counts: dict[str, int] = token_cache_info() | pretrained_cache_info() | frozen_cache_info()
    return counts


def clear_cache() -> None:
    """Empty the caches that fits share, and remove their files.

    Fitted estimators continue to work. The caches hold up to 1 GB of token ids and the weights of
    up to eight models in memory. Up to 16 GB of outputs of frozen layers, and the data that
    joblib's workers share, are in files. These are in a temporary folder of the process, which is
    removed when the process ends. A worker keeps the last two data sets that it received through
    :func:`share`.

    Examples
    --------
    >>> from skfocal import clear_cache
    >>> clear_cache()
    """
    clear_token_cache()
    clear_pretrained_cache()
    clear_frozen_cache()
    clear_payloads()
