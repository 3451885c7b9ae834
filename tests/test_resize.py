"""Pictures made smaller and larger without an image library."""

import numpy as np

from envservers.resize import resized


def picture(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3)).astype(np.uint8)


def test_of_its_own_size_it_is_itself():
    image = picture(5, 7)
    assert resized(image, 5, 7) is image


def test_smaller_is_the_mean_of_what_falls_into_each_pixel():
    image = picture(7, 10)
    small = resized(image, 2, 4)
    # Seven rows are three and four, ten columns two and three, twice.
    parts = [image[rows, columns] for rows in (slice(0, 3), slice(3, 7)) for columns in
             (slice(0, 2), slice(2, 5), slice(5, 7), slice(7, 10))]  # fmt: skip
    means = [np.rint(part.mean(axis=(0, 1))) for part in parts]
    np.testing.assert_array_equal(small, np.reshape(means, (2, 4, 3)))


def test_larger_repeats_pixels():
    image = picture(2, 3)
    np.testing.assert_array_equal(resized(image, 4, 6), image.repeat(2, axis=0).repeat(2, axis=1))
