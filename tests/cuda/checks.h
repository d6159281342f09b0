// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "runner.h"

namespace harness {

// Whether checks of this name were asked for.
bool wanted(const std::string& name);

// Prints a check and counts it as failed where the error is not within the tolerance.
void expect(const std::string& name, double error, double tolerance);

void check_elements();

}  // namespace harness
