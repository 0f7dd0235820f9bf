"""Loops of the CPU step, compiled by numba; each function covers a range so that callers split work as they like.

Results never depend on the split: a token, a feature or a row is always worked by one thread, in one order. Sums may be
reassociated by the compiler (that is what makes them vectors), but the same way every time. NaN and infinity keep
their meaning: a broken activation must reach the loss.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_fast = {"nogil": True, "cache": True, "fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}

BLOCK = 8
"""Scores per block of the selection; block j holds every score whose index is j modulo the number of blocks."""


@njit(**_fast)
def _count_at_least(scores_N, n, floor):
    count = 0
    for i in range(n):
        count += scores_N[i] >= floor
    return count


@njit(**_fast)
def _floor_for(scores_N, n, fewest, most, guess):
    """A positive floor that between ``fewest`` and ``most`` of ``scores[:n]`` reach, or the tightest with more; else 0.

    Bisection on the value: counting is a vector operation, sorting is not. With ``fewest == most`` the count is exact
    unless equal scores straddle it, and then the floor is their value.
    """
    low = scores_N[0] * 0
    high = low
    positive = 0
    for i in range(n):
        high = max(high, scores_N[i])
        positive += scores_N[i] > 0
    if positive < fewest:
        return low
    if _count_at_least(scores_N, n, high) >= fewest:
        return high
    middle = guess if low < guess < high else (low + high) / 2
    while low < middle < high:
        count = _count_at_least(scores_N, n, middle)
        if count < fewest:
            high = middle
        else:
            low = middle
            if count <= most:
                break
        middle = (low + high) / 2
    return low


@njit(**_fast)
def select_rows(scores_bF, b_enc_F, values_bK, indices_bK, maxima_N, blocks_N, kept_F, found_F):
    """The k largest of ``ReLU(scores + b_enc)`` per row, ties by lowest index, in an order of no meaning.

    Args:
        scores_bF: products without the bias.
        maxima_N, blocks_N: scratch: block maxima and the blocks looked at.
        kept_F, found_F: scratch of F + 1: candidate scores and their indices.
    """
    rows, F = scores_bF.shape
    K = values_bK.shape[1]
    N = F // BLOCK
    floor = scores_bF[0, 0] * 0
    for row in range(rows):
        scores_F = scores_bF[row]
        zero = scores_F[0] * 0
        found = 0
        # As many blocks as reach the floor hold at least as many scores that do: nothing below it can be kept.
        guess, floor = floor, zero
        if N >= K:
            _block_maxima(scores_F, b_enc_F, maxima_N)
            floor = _floor_for(maxima_N, N, K, K + K // 4, guess)
        if floor > 0:
            # Writing always and advancing sometimes: a branch here would be mispredicted at every candidate.
            blocks = 0
            for j in range(N):
                found_F[blocks] = j
                blocks += maxima_N[j] >= floor
            for i in range(blocks):
                blocks_N[i] = found_F[i]
            for i in range(blocks):
                for f in range(blocks_N[i], N * BLOCK, N):
                    score = scores_F[f] + b_enc_F[f]
                    kept_F[found] = score
                    found_F[found] = f
                    found += score >= floor
            for f in range(N * BLOCK, F):
                score = scores_F[f] + b_enc_F[f]
                kept_F[found] = score
                found_F[found] = f
                found += score >= floor
        else:
            for f in range(F):
                score = scores_F[f] + b_enc_F[f]
                if score > 0:
                    kept_F[found] = score
                    found_F[found] = f
                    found += 1
        if found <= K:
            for i in range(found):
                values_bK[row, i] = kept_F[i]
                indices_bK[row, i] = found_F[i]
            _fill_with_zeros(values_bK[row], indices_bK[row], found)
            continue
        cut = _floor_for(kept_F, found, K, K, floor)
        if _count_at_least(kept_F, found, cut) == K:
            slot = 0
            for i in range(found):
                score = kept_F[i]
                kept_F[slot] = score
                found_F[slot] = found_F[i]
                slot += score >= cut
            for i in range(K):
                values_bK[row, i] = kept_F[i]
                indices_bK[row, i] = found_F[i]
            continue
        _keep_with_ties(scores_F, b_enc_F, cut, found_F, found, values_bK[row], indices_bK[row])


@njit(**_fast)
def sort_rows(values_bK, indices_bK):
    """Sorts each row by falling value, equal values by rising index: insertion, as rows are short."""
    rows, K = values_bK.shape
    for row in range(rows):
        for i in range(1, K):
            value, index = values_bK[row, i], indices_bK[row, i]
            slot = i
            while slot > 0 and (
                values_bK[row, slot - 1] < value
                or (values_bK[row, slot - 1] == value and indices_bK[row, slot - 1] > index)
            ):
                values_bK[row, slot] = values_bK[row, slot - 1]
                indices_bK[row, slot] = indices_bK[row, slot - 1]
                slot -= 1
            values_bK[row, slot] = value
            indices_bK[row, slot] = index


@njit(**_fast)
def _block_maxima(scores_F, b_enc_F, maxima_N):
    """Maximum over each block, four of its scores at a time; the comparison passes over NaN."""
    N = maxima_N.shape[0]
    for j in range(N):
        maxima_N[j] = 0
    for part in range(0, BLOCK, 4):
        a, b, c, e = part * N, (part + 1) * N, (part + 2) * N, (part + 3) * N
        for j in range(N):
            first = scores_F[a + j] + b_enc_F[a + j]
            second = scores_F[b + j] + b_enc_F[b + j]
            third = scores_F[c + j] + b_enc_F[c + j]
            fourth = scores_F[e + j] + b_enc_F[e + j]
            first = first if first > second else second
            third = third if third > fourth else fourth
            first = first if first > third else third
            maxima_N[j] = first if first > maxima_N[j] else maxima_N[j]


@njit(**_fast)
def _keep_with_ties(scores_F, b_enc_F, cut, found_F, found, values_K, indices_K):
    """Keeps what exceeds the cut, and of what equals it the lowest indices."""
    K = values_K.shape[0]
    found_F[:found].sort()
    slot = 0
    for i in range(found):
        f = found_F[i]
        if scores_F[f] + b_enc_F[f] > cut:
            values_K[slot] = scores_F[f] + b_enc_F[f]
            indices_K[slot] = f
            slot += 1
    for i in range(found):
        f = found_F[i]
        if slot < K and scores_F[f] + b_enc_F[f] == cut:
            values_K[slot] = cut
            indices_K[slot] = f
            slot += 1


@njit(**_fast)
def _fill_with_zeros(values_K, indices_K, kept):
    """Empty slots take the lowest indices not in use: valid and distinct, as ``TopKSae.encode`` promises."""
    free = 0
    for slot in range(kept, values_K.shape[0]):
        while _holds(indices_K, kept, free):
            free += 1
        values_K[slot] = 0
        indices_K[slot] = free
        free += 1


@njit(**_fast)
def _holds(indices_K, n, index):
    found = False
    for i in range(n):
        found |= indices_K[i] == index
    return found


@njit(**_fast)
def decode_rows(x_bD, values_bK, indices_bK, W_dec_FD, b_dec_D, scale, residual_bD, slopes_bK):
    """Residual ``x_hat - x`` of each token, and ``scale * residual . W_dec[f]`` for each kept feature.

    The rows gathered for the first are still in the cache for the second.
    """
    rows, D = x_bD.shape
    for row in range(rows):
        residual_D = residual_bD[row]
        for d in range(D):
            residual_D[d] = b_dec_D[d] - x_bD[row, d]
        for j in range(values_bK.shape[1]):
            value = values_bK[row, j]
            direction_D = W_dec_FD[indices_bK[row, j]]
            for d in range(D):
                residual_D[d] += value * direction_D[d]
        for j in range(values_bK.shape[1]):
            direction_D = W_dec_FD[indices_bK[row, j]]
            product = b_dec_D[0] * 0
            for d in range(D):
                product += residual_D[d] * direction_D[d]
            slopes_bK[row, j] = scale * product


@njit(**_fast)
def index_by_feature(values_BK, indices_BK, hits_F, ends_F, order_P):
    """Counting sort of the fired (token, slot) pairs by feature, tokens ascending within a feature."""
    B, K = values_BK.shape
    F = hits_F.shape[0]
    hits_F[:] = 0
    for b in range(B):
        for j in range(K):
            if values_BK[b, j] > 0:
                hits_F[indices_BK[b, j]] += 1
    start = 0
    for f in range(F):
        ends_F[f] = start
        start += hits_F[f]
    for b in range(B):
        for j in range(K):
            if values_BK[b, j] > 0:
                f = indices_BK[b, j]
                order_P[ends_F[f]] = b * K + j
                ends_F[f] += 1


@njit(**_fast)
def feature_gradients(
    low, high, x_BD, residual_BD, values_BK, slopes_BK, hits_F, ends_F, order_P, scale, dW_enc_FD, db_enc_F, dW_dec_FD
):
    """Gradients of the features ``low..high``: each row is summed over its own tokens, in their order."""
    K = values_BK.shape[1]
    for f in range(low, high):
        enc_D = dW_enc_FD[f]
        dec_D = dW_dec_FD[f]
        enc_D[:] = 0
        dec_D[:] = 0
        bias = scale * 0
        for p in range(ends_F[f] - hits_F[f], ends_F[f]):
            b = order_P[p] // K
            slope = slopes_BK[b, order_P[p] - b * K]
            weight = scale * values_BK[b, order_P[p] - b * K]
            x_D = x_BD[b]
            residual_D = residual_BD[b]
            for d in range(x_D.shape[0]):
                enc_D[d] += slope * x_D[d]
                dec_D[d] += weight * residual_D[d]
            bias += slope
        db_enc_F[f] = bias


@njit(**_fast)
def remove_radial(low, high, W_dec_FD, dW_dec_FD, dW_enc_FD, db_enc_F, squares_F):
    """Removes the part of each decoder gradient along its row; leaves each feature's squared gradient norm."""
    D = W_dec_FD.shape[1]
    for f in range(low, high):
        w_D = W_dec_FD[f]
        dec_D = dW_dec_FD[f]
        enc_D = dW_enc_FD[f]
        along = w_D[0] * dec_D[0]
        for d in range(1, D):
            along += w_D[d] * dec_D[d]
        total = enc_D[0] * 0
        for d in range(D):
            dec_D[d] -= along * w_D[d]
            total += dec_D[d] * dec_D[d] + enc_D[d] * enc_D[d]
        squares_F[f] = np.float64(total) + np.float64(db_enc_F[f]) * np.float64(db_enc_F[f])


@njit(**_fast)
def adam_rows(low, high, W_FD, dW_FD, m_FD, v_FD, clip, beta1, beta2, rate, root2, epsilon, unit):
    """Adam on rows ``low..high``; with ``unit`` the rows leave with norm 1.

    ``rate`` is the learning rate over the first bias correction, ``root2`` the root of the second, ``clip`` the factor
    on the gradient. All are passed in the precision of the parameters: a float64 among them would widen every product.
    """
    D = W_FD.shape[1]
    one = clip * 0 + 1
    for f in range(low, high):
        w_D = W_FD[f]
        g_D = dW_FD[f]
        m_D = m_FD[f]
        v_D = v_FD[f]
        square = w_D[0] * 0
        for d in range(D):
            g = clip * g_D[d]
            m = beta1 * m_D[d] + (one - beta1) * g
            v = beta2 * v_D[d] + (one - beta2) * g * g
            m_D[d] = m
            v_D[d] = v
            w = w_D[d] - rate * m / (np.sqrt(v) / root2 + epsilon)
            w_D[d] = w
            square += w * w
        if unit:
            inverse = one / np.sqrt(square)
            for d in range(D):
                w_D[d] *= inverse
