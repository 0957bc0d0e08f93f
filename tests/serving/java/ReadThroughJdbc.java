// Reads a served replica through Arrow's Flight SQL JDBC driver, and prints what it finds, a line each.
// java -cp flight-sql-jdbc-driver.jar ReadThroughJdbc.java URL

import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.time.Instant;

public class ReadThroughJdbc {
  public static void main(String[] args) throws Exception {
    try (Connection connection = DriverManager.getConnection(args[0])) {
      DatabaseMetaData about = connection.getMetaData();
      System.out.println("product " + about.getDatabaseProductName() + ", read-only " + about.isReadOnly());
      try (ResultSet catalogs = about.getCatalogs()) {
        while (catalogs.next()) System.out.println("catalog " + catalogs.getString(1));
      }
      try (ResultSet schemas = about.getSchemas()) {
        while (schemas.next()) System.out.println("schema " + schemas.getString("TABLE_SCHEM"));
      }
      try (ResultSet tables = about.getTables(null, "main", "%", new String[] {"TABLE"})) {
        while (tables.next()) System.out.println("table " + tables.getString("TABLE_NAME"));
      }
      try (ResultSet columns = about.getColumns(null, "main", "orders", "%")) {
        while (columns.next())
          System.out.println("column " + columns.getString("COLUMN_NAME") + " " + columns.getInt("DATA_TYPE"));
      }
      try (ResultSet keys = about.getPrimaryKeys(null, "main", "orders")) {
        while (keys.next()) System.out.println("key " + keys.getString("COLUMN_NAME"));
      }
      try (Statement statement = connection.createStatement();
          ResultSet rows = statement.executeQuery("SELECT id, qty, sku FROM orders WHERE id < 3 ORDER BY id")) {
        ResultSetMetaData shape = rows.getMetaData();
        System.out.println("shape " + shape.getColumnName(1) + " " + shape.getColumnTypeName(1));
        while (rows.next())
          System.out.println("row " + rows.getLong(1) + " " + rows.getInt(2) + " " + rows.getString(3));
      }
      String sql = "SELECT id, ?::DECIMAL(10, 2) AS d, ?::VARCHAR AS s, ?::DATE AS t, ?::TIMESTAMPTZ AS z,"
          + " ?::TIMESTAMP AS n, ?::TIME AS c FROM orders WHERE id = ?";
      try (PreparedStatement prepared = connection.prepareStatement(sql)) {
        for (long id = 4; id < 6; id++) {
          prepared.setBigDecimal(1, new BigDecimal("12.50"));
          prepared.setString(2, "ü" + id);
          prepared.setDate(3, java.sql.Date.valueOf("2024-02-29"));
          prepared.setTimestamp(4, Timestamp.from(Instant.parse("2026-02-01T10:00:00.125Z")));
          prepared.setTimestamp(5, Timestamp.from(Instant.parse("2026-02-01T10:00:00.125Z")));
          prepared.setTime(6, java.sql.Time.valueOf("12:34:56"));
          prepared.setLong(7, id);
          try (ResultSet rows = prepared.executeQuery()) {
            while (rows.next())
              System.out.println("bound " + rows.getLong(1) + " " + rows.getBigDecimal(2) + " " + rows.getString(3)
                  + " " + rows.getDate(4) + " " + rows.getTimestamp(5).toInstant() + " " + rows.getTimestamp(6).toInstant()
                  + " " + rows.getTime(7));
          }
        }
      }
      try (Statement statement = connection.createStatement();
          ResultSet rows = statement.executeQuery("SELECT i, md5(i::VARCHAR) FROM range(200000) AS r(i)")) {
        long sum = 0;
        while (rows.next()) sum += rows.getLong(1);
        System.out.println("sum " + sum);
      }
      for (String bad : new String[] {"SELECT * FROM nowhere", "DELETE FROM orders"}) {
        try (Statement statement = connection.createStatement()) {
          statement.executeQuery(bad);
          System.out.println("error none");
        } catch (SQLException error) {
          System.out.println("error " + error.getMessage().lines().count() + " " + error.getMessage());
        }
      }
    }
    System.exit(0);
  }
}
