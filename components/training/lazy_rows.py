"""Training of a table of which each step touches few rows."""

import tensorflow as tf

from components.training.averages import exchange

RATE = 10.0
"""Rate of the rows, in units of the other weights' learning rate: Adagrad's steps become smaller
with each touch, Adam's do not."""
EPSILON = 1e-20
ROWS_AT_ONCE = 1 << 18
SMALLEST = 1e-30
"""Of the shares' total, where no step was taken yet and nothing is averaged."""


class LazyRows(tf.Module):
    """Trains a table [n, C] of which each step touches few rows; the others cost nothing.

    Steps are those of row-wise Adagrad (Naumov et al. 2019; ``EXACT_ROWWISE_ADAGRAD`` of FBGEMM): a
    row has one number s, the sum of its mean squared gradients, and moves by rate / sqrt(s) times
    its gradient.

    The L2 penalty is a part of every step for every row, touched or not. While a row is not
    touched, its s and so its step size stay the same: in k steps the penalty shrinks it by
    exp(-2 penalty rate k / sqrt(s)). That is done when the row is touched next, and for all rows by
    ``shrink_all``, at the latest before the rate changes.

    So is the average of the rows over the steps, as ``Averages`` has it of other weights: of the
    steps that a row missed it is known what they made of it, a geometric series.

    Args:
        table: The table. It is not among the weights that another optimizer trains.
        penalty: Factor of the sum of squares in the loss.
        momentum: Of the average over the steps, which takes as much memory as the table; 0 keeps
            none.
    """

    def __init__(self, table: tf.Variable, penalty: float, momentum: float = 0.0) -> None:
        super().__init__(name="lazy_rows")
        n = table.shape[0]
        self.table = table
        self._penalty = penalty
        self._squares = tf.Variable(tf.zeros([n]), trainable=False, name="squares")
        self._shrunk_at = tf.Variable(tf.zeros([n], tf.int64), trainable=False, name="shrunk_at")
        self._steps = tf.Variable(tf.zeros([], tf.int64), trainable=False, name="steps")
        self._momentum = momentum
        self._average = tf.Variable(table, trainable=False, name="average") if momentum else None

    def shrink(self, rows: tf.Tensor, learning_rate: tf.Tensor) -> None:
        """Shrink rows by the penalty of the steps since they were last shrunk; average them too.

        Args:
            rows: [R] rows; one may be there twice.
            learning_rate: Of the other weights.
        """
        shrunk_at = tf.gather(self._shrunk_at, rows)
        missed = tf.cast(self._steps - shrunk_at, tf.float32)
        size = self._step_size(tf.gather(self._squares, rows), learning_rate)
        fall = 2.0 * self._penalty * size
        before = tf.gather(self.table, rows)
        values = before * tf.exp(-fall * missed)[:, None]
        self.table.scatter_update(tf.IndexedSlices(values, rows))
        if self._average is not None:
            self._take_in(self._average, rows, before, fall, shrunk_at)
        now = tf.fill(tf.shape(rows), self._steps.read_value())
        self._shrunk_at.scatter_update(tf.IndexedSlices(now, rows))

    def shrink_all(self, learning_rate: tf.Tensor) -> None:
        """Shrink every row, so that the table is what it would be with the penalty in the loss."""
        n = self.table.shape[0]
        for start in range(0, n, ROWS_AT_ONCE):
            self.shrink(tf.range(start, min(start + ROWS_AT_ONCE, n)), learning_rate)

    def exchange(self) -> None:
        """Give the table the values of the average, and it those; again: undo that.

        Only when every row was just shrunk, and before a row is shrunk again, undone.
        """
        if self._average is not None:
            exchange(self.table, self._average)

    def apply(self, gradient: tf.IndexedSlices, learning_rate: tf.Tensor) -> None:
        """Take one step with the gradient of rows that were shrunk before.

        Args:
            gradient: [R, C] of R rows; those of a row that is there twice are added.
            learning_rate: Of the other weights.
        """
        rows, place = tf.unique(gradient.indices)
        sums = tf.math.unsorted_segment_sum(gradient.values, place, tf.shape(rows)[0])
        squares = tf.gather(self._squares, rows) + tf.reduce_mean(sums**2, axis=1)
        self._squares.scatter_update(tf.IndexedSlices(squares, rows))
        step = self._step_size(squares, learning_rate)[:, None] * sums
        self.table.scatter_sub(tf.IndexedSlices(step, rows))
        self._steps.assign_add(1)

    def _take_in(
        self,
        average: tf.Variable,
        rows: tf.Tensor,
        values: tf.Tensor,
        fall: tf.Tensor,
        since: tf.Tensor,
    ) -> None:
        """Bring the average of rows up to date.

        Args:
            average: [n, C] of all rows, each up to the step in which it was last shrunk.
            rows: [R].
            values: [R, C] what the rows were ``since``.
            fall: [R] of the logarithm of their size in each step since then.
            since: [R] the step.
        """
        decay = -tf.math.log(tf.constant(self._momentum, tf.float64))
        now, then = tf.cast(self._steps, tf.float64), tf.cast(since, tf.float64)
        missed = now - then
        total = tf.maximum(-tf.math.expm1(-decay * now), SMALLEST)
        older = tf.exp(-decay * missed) * -tf.math.expm1(-decay * then) / total
        newer = -tf.math.expm1(-decay) * sum_series(decay, tf.cast(fall, tf.float64), missed)
        older, newer = (tf.cast(share, tf.float32)[:, None] for share in (older, newer / total))
        before = tf.gather(average, rows)
        after = tf.where(missed[:, None] > 0, older * before + newer * values, before)
        average.scatter_update(tf.IndexedSlices(after, rows))

    def _step_size(self, squares: tf.Tensor, learning_rate: tf.Tensor) -> tf.Tensor:
        return RATE * learning_rate * tf.math.rsqrt(squares + EPSILON)


def sum_series(decay: tf.Tensor, fall: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """[R] sums over j = 1 ... k of exp(-decay (k - j)) exp(-fall j), without overflow.

    Args:
        decay: A scalar, float64, above 0.
        fall: [R], not below 0.
        steps: [R] the numbers k.
    """
    slower, gap = tf.minimum(decay, fall), tf.abs(decay - fall)
    gap = tf.maximum(gap, 1e-12)  # of equal ones the ratio below is k
    ratio = tf.math.expm1(-gap * steps) / tf.math.expm1(-gap)
    last = tf.where(fall > decay, tf.exp(-gap), tf.ones_like(gap))
    return tf.exp(-slower * steps) * last * ratio
