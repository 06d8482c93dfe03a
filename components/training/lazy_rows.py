"""Training of a table of which each step touches few rows."""

import tensorflow as tf

RATE = 10.0
"""Rate of the rows, in units of the other weights' learning rate: Adagrad's steps become smaller
with each touch, Adam's do not."""
EPSILON = 1e-20
ROWS_AT_ONCE = 1 << 18


class LazyRows(tf.Module):
    """Trains a table [n, C] of which each step touches few rows; the others cost nothing.

    Steps are those of row-wise Adagrad (Naumov et al. 2019; ``EXACT_ROWWISE_ADAGRAD`` of FBGEMM): a
    row has one number s, the sum of its mean squared gradients, and moves by rate / sqrt(s) times
    its gradient.

    The L2 penalty is a part of every step for every row, touched or not. While a row is not
    touched, its s and so its step size stay the same: in k steps the penalty shrinks it by
    exp(-2 penalty rate k / sqrt(s)). That is done when the row is touched next, and for all rows by
    ``shrink_all``, at the latest before the rate changes.

    Args:
        table: The table. It is not among the weights that another optimizer trains.
        penalty: Factor of the sum of squares in the loss.
    """

    def __init__(self, table: tf.Variable, penalty: float) -> None:
        super().__init__(name="lazy_rows")
        n = table.shape[0]
        self.table = table
        self._penalty = penalty
        self._squares = tf.Variable(tf.zeros([n]), trainable=False, name="squares")
        self._shrunk_at = tf.Variable(tf.zeros([n], tf.int64), trainable=False, name="shrunk_at")
        self._steps = tf.Variable(tf.zeros([], tf.int64), trainable=False, name="steps")

    def shrink(self, rows: tf.Tensor, learning_rate: tf.Tensor) -> None:
        """Shrink rows by the penalty of the steps since they were last shrunk.

        Args:
            rows: [R] rows; one may be there twice.
            learning_rate: Of the other weights.
        """
        missed = tf.cast(self._steps - tf.gather(self._shrunk_at, rows), tf.float32)
        size = self._step_size(tf.gather(self._squares, rows), learning_rate)
        kept = tf.exp(-2.0 * self._penalty * size * missed)
        values = tf.gather(self.table, rows) * kept[:, None]
        self.table.scatter_update(tf.IndexedSlices(values, rows))
        now = tf.fill(tf.shape(rows), self._steps.read_value())
        self._shrunk_at.scatter_update(tf.IndexedSlices(now, rows))

    def shrink_all(self, learning_rate: tf.Tensor) -> None:
        """Shrink every row, so that the table is what it would be with the penalty in the loss."""
        n = self.table.shape[0]
        for start in range(0, n, ROWS_AT_ONCE):
            self.shrink(tf.range(start, min(start + ROWS_AT_ONCE, n)), learning_rate)

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

    def _step_size(self, squares: tf.Tensor, learning_rate: tf.Tensor) -> tf.Tensor:
        return RATE * learning_rate * tf.math.rsqrt(squares + EPSILON)
