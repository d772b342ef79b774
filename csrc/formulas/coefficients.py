"""Prints the polynomial coefficients of the headers here (needs mpmath): python csrc/formulas/coefficients.py

Minimax by exchange in 40-digit arithmetic, weighted by how much an error counts in what the polynomial is used for.
"""

from mpmath import atanh, cos, erf, erfc, exp, expm1, log, log1p, lu_solve, matrix, mp, mpf, nstr, pi, polyval, sqrt

mp.dps = 40
TINY = mpf("1e-12")  # closer to 0 the quotients below have their limits


def minimax(function, weight, low, high, degree, points=500):
    """Coefficients, lowest first, that make the largest |weight (polynomial - function)| least, and that error."""
    low, high = mpf(low), mpf(high)
    grid = [(low + high) / 2 - (high - low) / 2 * cos(pi * i / points) for i in range(points + 1)]
    values, weights = [function(x) for x in grid], [mpf(weight(x)) for x in grid]
    extrema = [round(points * (k + 0.5) / (degree + 2)) for k in range(degree + 2)]
    for _ in range(20):
        rows = [[weights[i] * grid[i] ** j for j in range(degree + 1)] + [(-1) ** k] for k, i in enumerate(extrema)]
        coefficients = list(lu_solve(matrix(rows), matrix([weights[i] * values[i] for i in extrema])))[:-1]
        errors = [w * (polyval(coefficients[::-1], x) - y) for x, y, w in zip(grid, values, weights, strict=True)]
        found: list[int] = []  # the largest error of each run of one sign
        for i, error in enumerate(errors):
            if not found or (error > 0) != (errors[found[-1]] > 0):
                found.append(i)
            elif abs(error) > abs(errors[found[-1]]):
                found[-1] = i
        while len(found) > degree + 2:
            found.pop(0 if abs(errors[found[0]]) < abs(errors[found[-1]]) else -1)
        if found == extrema or len(found) < degree + 2:
            break
        extrema = found
    return coefficients, max(abs(error) for error in errors)


def exp_tail(r):
    """(exp(r) - 1 - r) / r^2."""
    return mpf(1) / 2 + r / 6 if abs(r) < TINY else (exp(r) - 1 - r) / r**2


def minus_one_weight(r):
    """r^2 over exp(x) - 1 for x <= 0, where r is what is left of x: x itself, or x + log(2) and so on."""
    return abs(r) if abs(r) < TINY else r**2 / (-expm1(r) if r < 0 else 1 - expm1(r))


def log_quotient(t):
    """log(1 + t) / t."""
    return mpf(1) if t < TINY else log1p(t) / t


def complement_quotient(p):
    """-log(1 - p) / p."""
    return mpf(1) if p < TINY else -log1p(-p) / p


def artanh_tail(z):
    """(artanh(s) - s) / s^3, z = s^2."""
    return mpf(1) / 3 + z / 5 if z < TINY else (atanh(sqrt(z)) / sqrt(z) - 1) / z


def mills(q):
    """Phi(-a) exp(a^2 / 2) (a + 4), with q = (a - 4) / (a + 4)."""
    a = 4 * (1 + q) / (1 - q)
    return exp(a * a / 2) * erfc(a / sqrt(mpf(2))) / 2 * (a + 4)


def mills_weight(q):
    """Relative, but rounding a^2 / 2 costs a^2 / 2 units anyway."""
    a = 4 * (1 + q) / (1 - q)
    return 1 / mills(q) / (1 + a * a / 4)


def erf_quotient(z):
    """erf(h) / h, z = h^2."""
    return 2 / sqrt(pi) if z < TINY else erf(sqrt(z)) / sqrt(z)


def normal_quotient(w):
    """sqrt(2) erfinv(u) / u, w = -log(1 - u^2)."""
    return sqrt(pi / 2) if w < TINY else sqrt(mpf(2)) * mp.erfinv(sqrt(-expm1(-w))) / sqrt(-expm1(-w))


def erf_slope(h):
    return 2 / sqrt(pi) * exp(-h * h)


def serf_left(t):
    """log(erfc(h)) / t with h = log(1 + t): Serf where x < 0, t = exp(x)."""
    return -2 / sqrt(pi) if t < TINY else log(erfc(log1p(t))) / t


def serf_left_weight(t):
    return mpf(1) if t < TINY else t * erfc(log1p(t)) / erf(log1p(t))


def serf_left_slope(t):
    """Minus the derivative of log(erfc(h)) by x, over t."""
    return erf_slope(log1p(t)) / erfc(log1p(t)) / (1 + t)


def serf_right(x):
    """The same where x > 0."""
    return log(erfc(log1p(exp(x))))


def serf_right_weight(x):
    """For the value, and for x times the slope, which has exp of this as a factor."""
    return erfc(log1p(exp(x))) * max(1 / erf(log1p(exp(x))), x * serf_right_slope(x))


def serf_right_slope(x):
    return erf_slope(log1p(exp(x))) / erfc(log1p(exp(x))) / (1 + exp(-x))


half_log2 = log(2) / 2 * mpf("1.005")
TABLE = {
    "exp, float": (exp_tail, lambda r: r * r / exp(r), -half_log2, half_log2, 3),
    "exp, double": (exp_tail, lambda r: r * r / exp(r), -half_log2, half_log2, 9),
    "exp - 1, float": (exp_tail, minus_one_weight, -half_log2, half_log2, 4),
    "log(1 + t), float": (log_quotient, lambda t: 1 / log_quotient(t), 0, 1, 8),
    "-log(1 - p), float": (complement_quotient, lambda p: 1 / complement_quotient(p), 0, mpf(1) / 2, 8),
    "artanh, float": (artanh_tail, sqrt, 0, mpf(1) / 9, 3),
    "artanh, double": (artanh_tail, sqrt, 0, mpf(1) / 9, 9),
    "normal tail, float (a <= 14.5)": (mills, mills_weight, -1, mpf("10.5") / mpf("18.5"), 8),
    "normal tail, 16 bits (Triton's)": (mills, mills_weight, -1, mpf("10.5") / mpf("18.5"), 4),
    "normal tail, double (a <= 39)": (mills, mills_weight, -1, mpf(35) / mpf(43), 20),
    "erf below 1, double": (erf_quotient, lambda z: 1 / erf_quotient(z), 0, 1, 11),
    "normal noise, w - 2.5, float": (
        lambda v: normal_quotient(v + mpf("2.5")),
        lambda v: 1 / normal_quotient(v + mpf("2.5")),
        mpf("-2.5"),
        mpf("2.5"),
        7,
    ),
    "normal noise, sqrt(w) - 3 (w <= 15.94)": (
        lambda v: normal_quotient((v + 3) ** 2),
        lambda v: 1 / normal_quotient((v + 3) ** 2),
        sqrt(mpf(5)) - 3,
        mpf("0.993"),
        6,
    ),
    "Serf left, float": (serf_left, serf_left_weight, 0, 1, 7),
    "Serf left slope, float": (serf_left_slope, lambda t: 1 / serf_left_slope(t), 0, 1, 7),
    "Serf right, float": (serf_right, serf_right_weight, 0, mpf("4.8"), 8),
    "Serf right slope, float": (serf_right_slope, lambda x: x * erfc(log1p(exp(x))), 0, mpf("4.8"), 8),
}


def main() -> None:
    for title, arguments in TABLE.items():
        coefficients, error = minimax(*arguments)
        print(f"{title}, degree {arguments[-1]}, weighted error {nstr(error, 3)}:")
        print("  {" + ", ".join(nstr(c, 18) for c in coefficients) + "}")


if __name__ == "__main__":
    main()
