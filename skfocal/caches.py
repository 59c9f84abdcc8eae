"""What is kept between fits: token ids, pretrained weights, outputs of frozen layers."""

from skfocal._data.tokens import clear_token_cache, token_cache_info
from skfocal._encoder.frozen_layers import clear_frozen_cache, frozen_cache_info
from skfocal._encoder.pretrained import clear_pretrained_cache, pretrained_cache_info
from skfocal._runtime.shared_payload import clear_payloads


def cache_info():
    """Return how often this process has done what the caches save.

    The folds and candidates of a search share the token ids of each distinct text, the
    pretrained weights and, with ``freeze``, the outputs of the frozen layers. None of it is ever
    part of a pickle. What a worker got through :func:`share` is not counted: it did not do it.

    Returns
    -------
    dict of str to int
        ``texts_tokenized``, ``weights_read``, ``tokenizers_read`` and ``documents_frozen``
        (sent through frozen layers to keep the outputs). Counts never go down.

    Examples
    --------
    >>> from skfocal import cache_info
    >>> sorted(cache_info())
    ['documents_frozen', 'texts_tokenized', 'tokenizers_read', 'weights_read']
    """
    return token_cache_info() | pretrained_cache_info() | frozen_cache_info()


def clear_cache():
    """Forget all that is kept between fits, and remove its files.

    Fitted estimators go on working. Token ids of up to 1 GB and the weights of up to eight
    models stay in memory; outputs of frozen layers, up to 16 GB, and what joblib's workers
    share lie in files of the process's own folder among the temporary files, which goes away
    with the process. A worker keeps the last two things that :func:`share` gave it.

    Examples
    --------
    >>> from skfocal import clear_cache
    >>> clear_cache()
    """
    clear_token_cache()
    clear_pretrained_cache()
    clear_frozen_cache()
    clear_payloads()
