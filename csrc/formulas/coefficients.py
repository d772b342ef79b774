"""Prints the polynomial coefficients of number.h (needs mpmath): python csrc/formulas/coefficients.py

Interpolation at Chebyshev nodes in 50-digit arithmetic, which is within a small factor of minimax.
"""

from mpmath import cos, erfc, exp, log, lu_solve, matrix, mp, mpf, nstr, pi, sqrt

mp.dps = 50


def interpolate(function, low, high, degree):
    nodes = [(low + high) / 2 + (high - low) / 2 * cos(pi * (2 * k + 1) / (2 * degree + 2)) for k in range(degree + 1)]
    return lu_solve(matrix([[x**j for j in range(degree + 1)] for x in nodes]), matrix([function(x) for x in nodes]))


def exp_tail(r):
    """(exp(r) - 1 - r) / r^2, for |r| <= log(2) / 2."""
    return mpf(1) / 2 + r / 6 if abs(r) < mpf("1e-12") else (exp(r) - 1 - r) / r**2


def mills(q):
    """Phi(-a) exp(a^2 / 2) (a + 4), with q = (a - 4) / (a + 4)."""
    a = 4 * (1 + q) / (1 - q)
    return exp(a * a / 2) * erfc(a / sqrt(mpf(2))) / 2 * (a + 4)


def show(title, function, low, high, degree):
    coefficients = interpolate(function, low, high, degree)
    points = [low + (high - low) * mpf(i) / 1000 for i in range(1001)]
    error = max(abs(sum(c * x**j for j, c in enumerate(coefficients)) / function(x) - 1) for x in points)
    print(f"{title}, degree {degree}, relative error {nstr(error, 3)}:")
    print("  {" + ", ".join(nstr(c, 18) for c in coefficients) + "}")


half_log2 = log(2) / 2 * mpf("1.01")
show("exp, float", exp_tail, -half_log2, half_log2, 4)
show("exp, double", exp_tail, -half_log2, half_log2, 9)
show("normal tail, float (a <= 14.5)", mills, mpf(-1), mpf("10.5") / mpf("18.5"), 9)
show("normal tail, double (a <= 39)", mills, mpf(-1), mpf(35) / mpf(43), 22)
