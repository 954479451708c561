"""How does one recorded run become many trials? Walk along it, make its crash states real, recover and judge them."""
