"""A recursive-descent parser for PromQL. Source: https://prometheus.io/docs/prometheus/latest/querying/basics/"""

from __future__ import annotations

from foveal.observability.promql.syntax import (
    Aggregation,
    Binary,
    Call,
    Expression,
    Literal,
    Matcher,
    Selector,
    Subquery,
)
from foveal.observability.promql.tokens import PromqlError, Token, tokenise

__all__ = ["parse"]

_AGGREGATIONS = frozenset(
    {
        *("sum", "avg", "min", "max", "count", "stddev", "stdvar", "group", "topk", "bottomk", "quantile"),
        *("count_values", "limitk", "limit_ratio"),
    }
)
_PRECEDENCE = {"or": 1, "and": 2, "unless": 2, "+": 4, "-": 4, "*": 5, "/": 5, "%": 5, "atan2": 5, "^": 6}
_COMPARISONS = frozenset({"==", "!=", "<", ">", "<=", ">="})


def parse(query: str) -> Expression:
    """Raises PromqlError for what Prometheus would not accept either."""
    parser = _Parser(query)
    tree = parser.expression(0)
    parser.expect_end()
    return tree


class _Parser:
    def __init__(self, query: str) -> None:
        self._query = query
        self._tokens = tokenise(query)
        self._next = 0

    def expression(self, lowest: int) -> Expression:
        left = self._unary()
        while True:
            operator = self._peek().text
            level = 3 if operator in _COMPARISONS else _PRECEDENCE.get(operator, 0)
            if level == 0 or level < lowest:
                return left
            self._take()
            if operator in _COMPARISONS and self._peek().text == "bool":
                self._take()
            labels = self._matching()
            # ^ binds to the right, all others to the left.
            right = self.expression(level if operator == "^" else level + 1)
            left = Binary(operator, left, right, labels)

    def expect_end(self) -> None:
        if self._peek().kind != "end":
            raise self._error("an operator or the end")

    def _matching(self) -> tuple[str, ...]:
        labels: tuple[str, ...] = ()
        while self._peek().text in ("on", "ignoring", "group_left", "group_right"):
            word = self._take().text
            if self._peek().text == "(":
                labels += self._labels()
            elif word in ("on", "ignoring"):
                raise self._error("(")
        return labels

    def _unary(self) -> Expression:
        if self._peek().text in ("-", "+"):
            sign = self._take().text
            return Binary(sign, Literal("0"), self.expression(6))
        return self._postfix(self._primary())

    def _primary(self) -> Expression:
        token = self._peek()
        if token.text == "{":
            return Selector("", self._matchers())
        if token.kind not in ("number", "string", "duration", "name") and token.text != "(":
            raise self._error("a metric, a function or a number")
        self._take()
        if token.text == "(":
            inner = self.expression(0)
            self._expect(")")
            return inner
        if token.kind != "name":
            return Literal(token.text)
        following = self._peek().text
        if token.text in _AGGREGATIONS and following in ("(", "by", "without"):
            return self._aggregation(token.text)
        if following == "(":
            return Call(token.text, self._arguments())
        if token.text.lower() in ("inf", "nan"):
            return Literal(token.text)
        return Selector(token.text, self._matchers() if following == "{" else ())

    def _postfix(self, node: Expression) -> Expression:
        while True:
            text = self._peek().text
            if text == "[":
                node = self._range(node)
            elif text == "offset":
                self._take()
                self._take()
            elif text == "@":
                self._take()
                self._primary()
            else:
                return node

    def _range(self, node: Expression) -> Expression:
        self._expect("[")
        length = self._duration()
        if self._peek().text == ":":
            self._take()
            step = "" if self._peek().text == "]" else self._duration()
            self._expect("]")
            return Subquery(node, length, step)
        self._expect("]")
        if not isinstance(node, Selector) or node.range:
            raise PromqlError(
                f"[{length}] may only follow a metric in {self._query!r}; write [{length}:] for a subquery"
            )
        return Selector(node.metric, node.matchers, length)

    def _duration(self) -> str:
        token = self._peek()
        if token.kind != "duration" and not token.text.startswith("$"):
            raise self._error("a duration such as 5m")
        return self._take().text

    def _aggregation(self, operator: str) -> Expression:
        grouping, labels = self._grouping()
        arguments = self._arguments()
        if not grouping:
            grouping, labels = self._grouping()
        return Aggregation(operator, arguments, grouping, labels)

    def _grouping(self) -> tuple[str, tuple[str, ...]]:
        if self._peek().text not in ("by", "without"):
            return "", ()
        return self._take().text, self._labels()

    def _arguments(self) -> tuple[Expression, ...]:
        self._expect("(")
        arguments: list[Expression] = []
        while self._peek().text != ")":
            arguments.append(self.expression(0))
            if self._peek().text != ")":
                self._expect(",")
        self._expect(")")
        return tuple(arguments)

    def _labels(self) -> tuple[str, ...]:
        self._expect("(")
        labels: list[str] = []
        while self._peek().text != ")":
            labels.append(self._name())
            if self._peek().text != ")":
                self._expect(",")
        self._expect(")")
        return tuple(labels)

    def _matchers(self) -> tuple[Matcher, ...]:
        self._expect("{")
        matchers: list[Matcher] = []
        while self._peek().text != "}":
            label = self._name()
            if self._peek().text not in ("=", "!=", "=~", "!~"):
                raise self._error('a matcher such as label="value"')
            op = self._take().text
            if self._peek().kind != "string":
                raise self._error("a quoted value")
            matchers.append(Matcher(label, op, self._take().text[1:-1]))
            if self._peek().text != "}":
                self._expect(",")
        self._expect("}")
        return tuple(matchers)

    def _name(self) -> str:
        if self._peek().kind != "name":
            raise self._error("a label's name")
        return self._take().text

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _expect(self, text: str) -> None:
        if self._peek().text != text:
            raise self._error(repr(text))
        self._take()

    def _error(self, wanted: str) -> PromqlError:
        token = self._peek()
        found = repr(token.text) if token.text else "the end"
        return PromqlError(f"expected {wanted}, found {found} at {token.at} of {self._query!r}")
