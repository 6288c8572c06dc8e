"""PromQL expressions that the dashboards share."""

WINDOW = "[$__rate_interval]"
FAILED = 'status=~"INTERNAL|UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED"'
"""Statuses that count as errors, as in the alerting rules; errors of the caller do not count."""
COUNTED = 'status=~"OK|INTERNAL|UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED"'


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Events per second, summed by labels."""
    return f"{_sum(by)}(rate({metric}{_braces(where)}{WINDOW}))"


def mean(histogram: str, by: str = "", where: str = "") -> str:
    """The mean of a histogram's observations."""
    return f"{rate(f'{histogram}_sum', by, where)} / {rate(f'{histogram}_count', by, where)}"


def quantile(q: float, histogram: str, by: str = "", where: str = "") -> str:
    """A quantile of a histogram's observations, from 0 to 1."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', labels, where)})"


def bucket_increase(histogram: str, where: str = "") -> str:
    """Observations per bucket, for a heat map."""
    return f"sum by (le) (increase({histogram}_bucket{_braces(where)}{WINDOW}))"


def error_rate(by: str = "", where: str = "") -> str:
    """The error rate; 0, not empty, if no request failed."""
    comma = ", " if where else ""
    failed = rate("weir_requests_total", by, f"{where}{comma}{FAILED}")
    counted = rate("weir_requests_total", by, f"{where}{comma}{COUNTED}")
    return f"({failed} or 0 * {counted}) / {counted}"


def padding_ratio(by: str = "", where: str = "") -> str:
    """The share of computed tokens that is padding."""
    real = rate("weir_input_tokens_total", by, where)
    return f"1 - {real} / {rate('weir_padded_tokens_total', by, where)}"


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum "


def _braces(where: str) -> str:
    return f"{{{where}}}" if where else ""
